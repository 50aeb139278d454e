"""Devices that keep each other up to date: links, and the shipping of the transaction log between stores."""
