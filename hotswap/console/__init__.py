"""What the console shows above the apps; the kit is `hotswap.common.console`."""
