"""The classroom: sets of exercises handed out, graded behind walls, and explained."""

from __future__ import annotations


class CourseError(Exception):
    """A mistake in the input or a lack of this machine, in one sentence."""
