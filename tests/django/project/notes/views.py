from django.http import HttpResponse

from notes.models import Note


def home(request):
    user = request.user.username or "nobody"
    cart = request.session.get("cart", "no cart")
    return HttpResponse(f"{user}, {cart}, {Note.objects.count()} notes")
