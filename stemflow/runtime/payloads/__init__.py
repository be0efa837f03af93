"""Values as bytes: JSON data, encoders, encryption, signatures and headers."""
