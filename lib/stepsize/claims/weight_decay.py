"""The claim on decoupled weight decay: chapter 06."""
