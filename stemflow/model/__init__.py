"""The data types of the engine: signatures, plans, records, facts and effects. They have no behaviour of their own."""
