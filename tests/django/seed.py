"""Makes production's users, notes and sessions; prints the cookies of a user and of a guest."""

import os
import sys

import django

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()

from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client

from notes.models import Note

for name in ("ada", "bob"):
    user = User.objects.create_user(name, f"{name}@example.com", f"production-{name}")
    Note.objects.create(author=user, text=f"a note of {name}")

client = Client()
assert client.login(username="ada", password="production-ada")
guest = SessionStore()
for session in (client.session, guest):
    session["cart"] = "a cart"
    session.save()
    print(session.session_key)
