"""Who gets in, who does not, and what the browser is told to do with the answers."""

from __future__ import annotations

import pytest


@pytest.fixture
def anonymous(site_dir):
    from django.test import Client

    return Client(enforce_csrf_checks=False)


@pytest.mark.parametrize(
    "address",
    ["/", "/upload/", "/studies/x/", "/jobs/x/", "/jobs/x/progress", "/trail/", "/pacs/", "/admin/"],
)
def test_nothing_is_shown_to_somebody_who_is_not_logged_in(anonymous, address):
    answer = anonymous.get(address)
    assert answer.status_code == 302 and answer.url.startswith(("/log-in/", "/admin/login/"))


def test_the_right_password_lets_in_and_the_wrong_one_does_not(anonymous, account):
    name, password = account()
    wrong = anonymous.post("/log-in/", {"username": name, "password": password + "x"})
    assert wrong.status_code == 200 and b"alert" in wrong.content
    assert anonymous.post("/log-in/", {"username": name, "password": password}).url == "/"
    assert anonymous.get("/").status_code == 200
    assert anonymous.post("/log-out/").status_code == 302
    assert anonymous.get("/").status_code == 302


def test_after_five_wrong_passwords_the_right_one_is_not_looked_at(anonymous, account):
    name, password = account()
    for _ in range(5):
        anonymous.post("/log-in/", {"username": name, "password": "wrong"})
    # Letters' case and blanks make no new account to guess at.
    for spelled in (name, name.upper(), f" {name}"):
        refused = anonymous.post("/log-in/", {"username": spelled, "password": password})
        assert refused.status_code == 429 and b"15 minutes" in refused.content
    assert anonymous.get("/").status_code == 302


def test_an_account_that_does_not_exist_is_locked_in_the_same_words(anonymous, account):
    name, _ = account()
    answers = []
    for who in (name, "nobody-at-all"):
        said = [anonymous.post("/log-in/", {"username": who, "password": "wrong"}) for _ in range(6)]
        answers.append([(answer.status_code, answer.content.count(b"alert")) for answer in said])
    assert answers[0] == answers[1] == [(200, 1)] * 5 + [(429, 1)]


def test_an_address_that_tries_many_accounts_is_locked_out_too(anonymous, account):
    name, password = account()
    elsewhere = {"REMOTE_ADDR": "192.0.2.77"}
    for number in range(50):
        anonymous.post("/log-in/", {"username": f"guess-{number}", "password": "x"}, **elsewhere)
    right = {"username": name, "password": password}
    assert anonymous.post("/log-in/", right, **elsewhere).status_code == 429
    assert anonymous.post("/log-in/", right, REMOTE_ADDR="192.0.2.78").status_code == 302


@pytest.mark.parametrize(("proxies", "seen"), [(0, "10.0.0.1"), (1, "198.51.100.9"), (2, "203.0.113.5")])
def test_an_address_is_believed_only_from_the_proxies_of_the_site(site_says, proxies, seen):
    from django.test import RequestFactory

    from medseg.serve.web.lockout import address_of

    site_says(proxies=proxies)
    header = "1.2.3.4, 203.0.113.5, 198.51.100.9"  # what a client writes itself stands on the left
    request = RequestFactory().get("/", HTTP_X_FORWARDED_FOR=header, REMOTE_ADDR="10.0.0.1")
    assert address_of(request) == seen


def test_a_form_without_its_token_is_refused(account):
    from django.test import Client

    name, password = account()
    strict = Client(enforce_csrf_checks=True)
    assert strict.login(username=name, password=password)
    for address in ("/upload/", "/uploads/", "/compare/make", "/log-out/", "/language/"):
        assert strict.post(address).status_code == 403, address


def test_cookies_are_for_the_server_and_for_this_site_alone(anonymous, account):
    name, password = account()
    anonymous.get("/log-in/")
    anonymous.post("/log-in/", {"username": name, "password": password})
    anonymous.post("/language/", {"language": "zh-hans", "next": "/"})
    assert {"sessionid", "csrftoken", "django_language"} <= set(anonymous.cookies)
    for cookie in anonymous.cookies.values():
        assert cookie["httponly"] and cookie["samesite"] == "Lax", cookie


@pytest.mark.parametrize(
    ("url", "secure"), [("https://contours.example", "True"), ("http://127.0.0.1:8000", "False")]
)
def test_cookies_travel_only_encrypted_where_the_site_is(url, secure, tmp_path):
    import os
    import subprocess
    import sys

    script = "from medseg.serve.web import settings as s; "
    script += "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_HSTS_SECONDS > 0)"
    environment = {**os.environ, "MEDSEG_WEB_DATA": str(tmp_path), "MEDSEG_WEB_URL": url}
    said = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [secure] * 3


@pytest.mark.parametrize("address", ["/log-in/", "/nowhere/", "/static/web/site.css"])
def test_every_answer_says_what_a_browser_may_do_with_it(anonymous, address):
    headers = anonymous.get(address).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["X-Frame-Options"] == "DENY"
    assert ("no-store" in headers["Cache-Control"]) == (not address.startswith("/static/"))


def test_no_page_has_a_script_or_a_style_in_itself():
    from pathlib import Path

    import medseg.serve.web as web

    templates = sorted((Path(web.__file__).parent / "templates").rglob("*.html"))
    assert len(templates) > 15
    for template in templates:
        text = template.read_text()
        assert " style=" not in text and "<style" not in text and " onclick" not in text, template
        assert all("src=" in part[:40] for part in text.split("<script")[1:]), template


def test_passwords_are_stored_by_argon2_and_older_hashes_are_replaced_at_the_next_log_in(account):
    from django.contrib.auth.hashers import identify_hasher, make_password
    from django.contrib.auth.models import User
    from django.test import Client, override_settings

    from medseg.serve.web import settings

    with override_settings(PASSWORD_HASHERS=settings.PASSWORD_HASHERS):
        name, password = account()
        user = User.objects.get(username=name)
        hasher = identify_hasher(user.password)
        assert hasher.algorithm == "argon2" and hasher.memory_cost >= 46 * 1024 and hasher.time_cost >= 2
        assert "$m=47104,t=2,p=1$" in user.password
        user.password = make_password(password, hasher="pbkdf2_sha256")
        user.save()
        assert Client().login(username=name, password=password)
        user.refresh_from_db()
        assert user.password.startswith("argon2$argon2id$")
        assert not Client().login(username=name, password=password[:-1])


def test_a_password_of_the_site_s_own_making_is_long_and_a_short_one_is_refused(client):
    short = {"new_password1": "short1", "new_password2": "short1", "old_password": "x"}
    assert b"12" in client.post("/password/", short).content


def test_an_unknown_host_is_refused(anonymous):
    assert anonymous.get("/log-in/", HTTP_HOST="evil.example").status_code == 400


def test_the_key_is_readable_by_its_owner_alone_and_refused_otherwise(tmp_path):
    from medseg.errors import InputError
    from medseg.serve.web.secret import secret_key

    key = secret_key(tmp_path)
    assert len(key) > 50 and (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600
    assert secret_key(tmp_path) == key
    (tmp_path / "secret_key").chmod(0o644)
    with pytest.raises(InputError, match="mode 644"):
        secret_key(tmp_path)
