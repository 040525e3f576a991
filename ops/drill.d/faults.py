"""What goes wrong in a drill itself, as opposed to what it finds."""


class DrillError(Exception):
    """The drill cannot go on; says what failed and what to do."""
