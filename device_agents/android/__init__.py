"""Android, with a Python in Termux or in the adb shell."""
