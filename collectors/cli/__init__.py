"""The collectors' commands of `siteward`."""
