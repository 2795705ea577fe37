"""The methods, a file for each; `family.FAMILY` lists them."""
