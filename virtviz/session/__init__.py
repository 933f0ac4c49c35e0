"""A learner's way through a lesson: owns the machine, the moments, the questions and the answers."""
