"""The trade-off between accuracy, memory and time: measurements of many index configurations."""
