"""How a virtual machine's network comes to be: from power-on to the first frame."""
