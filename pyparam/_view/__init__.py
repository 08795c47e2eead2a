"""What is seen: text, pages, plots and notebooks."""

# Registers itself as what draws an Inspector in a notebook.
from pyparam._view import notebook as notebook
