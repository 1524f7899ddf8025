"""What makes a registry's entry: its parameters, the signature they follow from, code of other packages."""
