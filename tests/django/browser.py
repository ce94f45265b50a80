"""Prints the first line of the page that a visitor gets: after a login, or with a session's cookie.

browser.py URL login USER PASSWORD
browser.py URL cookie SESSION
"""

import http.cookiejar
import sys
import urllib.parse
import urllib.request

url, kind, *words = sys.argv[1:]
jar = http.cookiejar.CookieJar()
browser = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(jar)
)
if kind == "login":
    browser.open(f"{url}login/").read()
    form = {
        "username": words[0],
        "password": words[1],
        "csrfmiddlewaretoken": next(c.value for c in jar if c.name == "csrftoken"),
    }
    page = browser.open(f"{url}login/", urllib.parse.urlencode(form).encode())
else:
    page = browser.open(urllib.request.Request(url, headers={"Cookie": f"sessionid={words[0]}"}))
print(page.read().decode().splitlines()[0])
