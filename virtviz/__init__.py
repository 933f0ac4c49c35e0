"""See how a network packet really leaves and enters a virtual machine, one ring operation at a time."""
