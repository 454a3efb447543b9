"""The trade-off between accuracy, memory and time: many ways to index the same photographs, each of them measured."""
