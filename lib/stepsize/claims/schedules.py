"""The claims on learning-rate schedules: chapter 09."""
