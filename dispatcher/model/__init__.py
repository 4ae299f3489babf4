"""What the product talks about, as pure values: no I/O library is imported here."""
