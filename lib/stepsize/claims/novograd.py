"""The claims on NovoGrad: chapter 14."""
