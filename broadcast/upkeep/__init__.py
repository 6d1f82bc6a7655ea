"""Work on the data and a look at the system: retention, export and import, the doctor, and their commands."""
