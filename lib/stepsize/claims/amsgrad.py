"""The claims on AMSGrad and where Adam goes wrong: chapter 08."""
