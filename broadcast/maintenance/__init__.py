"""Diagnosis: the doctor, loop failures, and the check of the public URL."""
