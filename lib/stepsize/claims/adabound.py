"""The claims on AdaBound, AMSBound and SWATS: chapter 12."""
