"""Pictures of the terminal, for the README: what a program really printed, drawn by rich."""
