"""The console's pages about users, roles, invitations and tokens."""
