"""The HTML report: one file that holds its data, its code and its styles, and asks no network."""
