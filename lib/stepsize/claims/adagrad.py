"""The claims on AdaGrad, RMSProp and the framework behind them: chapter 04."""
