"""The claims on Adam and Nadam: chapters 05 and 07."""
