"""Django's settings. What an operator may change stands in :mod:`medseg.serve.web.site`."""

from urllib.parse import urlsplit

from medseg.serve.web.database import database
from medseg.serve.web.secret import secret_key
from medseg.serve.web.site import the_site

_SITE = the_site()
_PUBLIC = urlsplit(_SITE.public_url or "http://127.0.0.1:8000")

SECRET_KEY = secret_key(_SITE.data_dir)
DEBUG = False
_LOOPBACK = ("127.0.0.1", "localhost")
ALLOWED_HOSTS = list(_LOOPBACK) if _PUBLIC.hostname in _LOOPBACK else [_PUBLIC.hostname]
CSRF_TRUSTED_ORIGINS = [f"{_PUBLIC.scheme}://{_PUBLIC.netloc}"]
ROOT_URLCONF = "medseg.serve.web.urls"
WSGI_APPLICATION = "medseg.serve.web.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "medseg.serve.web.apps.WebConfig",
]
MIDDLEWARE = [
    "medseg.serve.web.middleware.SecurityHeaders",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "builtins": ["medseg.serve.web.templatetags.words"],
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "medseg.serve.web.pages.every_page",
            ],
        },
    }
]

DATABASES = {"default": database(_SITE)}
PASSWORD_HASHERS = [
    "medseg.serve.web.hashers.Argon2",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",  # of accounts made before
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}", **options}
    for name, options in (
        ("UserAttributeSimilarityValidator", {}),
        ("MinimumLengthValidator", {"OPTIONS": {"min_length": 12}}),
        ("CommonPasswordValidator", {}),
        ("NumericPasswordValidator", {}),
    )
]
LOGIN_URL, LOGIN_REDIRECT_URL, LOGOUT_REDIRECT_URL = "log_in", "studies", "log_in"

SESSION_COOKIE_AGE = 10 * 3600
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = LANGUAGE_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = LANGUAGE_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = _SITE.is_https
SECURE_HSTS_SECONDS = 365 * 86400 if _SITE.is_https else 0
SECURE_REFERRER_POLICY = "same-origin"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if _SITE.proxies else None

# An upload is counted in medseg.serve.web.uploads; these bound what Django reads by itself.
DATA_UPLOAD_MAX_MEMORY_SIZE = _SITE.chunk_bytes + 2**20
DATA_UPLOAD_MAX_NUMBER_FILES = _SITE.max_files
DATA_UPLOAD_MAX_NUMBER_FIELDS = 200
FILE_UPLOAD_HANDLERS = ["medseg.serve.web.uploads.CountedUpload"]
FILE_UPLOAD_TEMP_DIR = _SITE.data_dir / "incoming"

LANGUAGE_CODE, USE_TZ, TIME_ZONE = "en", True, "UTC"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文"), ("zh-hant", "繁體中文")]
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}
