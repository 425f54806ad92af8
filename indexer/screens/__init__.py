"""The screens of the commands that print for people."""
