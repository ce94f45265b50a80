from django.contrib import admin
from django.contrib.auth.views import LoginView
from django.urls import path

from notes.views import home

urlpatterns = [
    path("", home),
    path("login/", LoginView.as_view()),
    path("admin/", admin.site.urls),
]
