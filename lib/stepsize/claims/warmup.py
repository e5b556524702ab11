"""The claims on warm-up and RAdam: chapter 10."""
