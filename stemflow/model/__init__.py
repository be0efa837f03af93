"""The words of the engine as data: signatures, plans, records, facts and effects. No behaviour beyond their shape."""
