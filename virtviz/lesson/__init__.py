"""Lessons: YAML text to a checked lesson, the conditions it names, and the world and traffic it asks for."""
