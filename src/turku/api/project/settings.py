"""Django's settings, made from the environment alone (docs/reference/configuration.md lists the variables).

Importing them never fails and changes nothing. Errors become system checks (checks.py).
"""

import os
from pathlib import Path
from typing import Any

from turku.api.configuration import environment, key_file
from turku.core.secret import Secret, generate_secret
from turku.errors import ConfigurationError, TurkuError
from turku.protocol.codec import MESSAGE_LIMIT_BYTES


class HiddenText(str):
    """A text that listings of settings hide (`turku-api diffsettings`, error pages)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _hidden(secret: Secret) -> HiddenText:
    """Return the text of the secret for Django's settings."""
    return HiddenText(secret.reveal())


TURKU_ENVIRONMENT = environment.read(os.environ)
_ENGINES = {"sqlite3": "django.db.backends.sqlite3", "postgresql": "turku.api.database.postgresql"}
TURKU_SETTING_ERRORS: list[environment.SettingError] = list(TURKU_ENVIRONMENT.errors)


def _secret_key() -> Secret:
    if TURKU_ENVIRONMENT.secret_key:
        return TURKU_ENVIRONMENT.secret_key
    try:
        found = key_file.read(TURKU_ENVIRONMENT.secret_key_file)
        if len(found.reveal()) < environment.SECRET_KEY_LENGTH:
            raise ConfigurationError(
                f"{TURKU_ENVIRONMENT.secret_key_file}: is shorter than {environment.SECRET_KEY_LENGTH} characters",
                hint="remove it to have a new key generated",
            )
        return found
    except TurkuError as error:
        TURKU_SETTING_ERRORS.append(
            environment.SettingError("turku.E010", f"No secret key: {error.message}.", error.hint)
        )
        # This key lives as long as the process. `turku-api serve` refuses to start with the error.
        return generate_secret(64)


def _database() -> dict[str, Any]:
    database = TURKU_ENVIRONMENT.database
    result: dict[str, Any] = {
        "ENGINE": _ENGINES[database.engine],
        "NAME": database.name,
        "USER": database.user,
        "PASSWORD": _hidden(database.password),
        "HOST": database.host,
        "PORT": database.port,
        "CONN_MAX_AGE": 60,
        "CONN_HEALTH_CHECKS": True,
    }
    if database.engine == "sqlite3":
        # Only `turku-api migrate` creates the file. A missing file must not become an empty database.
        result["NAME"] = f"{Path(database.name).as_uri()}?mode=rw"
        result["OPTIONS"] = {
            # A writer takes the lock at once, so that the database does not change between its reads and writes.
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA mmap_size=1073741824;",
        }
    else:
        result["OPTIONS"] = {"connect_timeout": "10", **dict(database.options)}
        # A pooler that gives a connection to another client after each transaction would lose them. The longest
        # answer, a storage's list of machines, is held in memory anyway.
        result["DISABLE_SERVER_SIDE_CURSORS"] = True
    return result


SECRET_KEY = _hidden(_secret_key())
DEBUG = TURKU_ENVIRONMENT.debug
ALLOWED_HOSTS = list(TURKU_ENVIRONMENT.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(TURKU_ENVIRONMENT.csrf_trusted_origins)

INSTALLED_APPS = [
    "turku.api.admin.apps.TurkuAdminApp",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "turku.api.audit",
    "turku.api.fleet",
    "turku.api.backups",
    "turku.api.queue",
    "turku.api.integrity",
    "turku.api.restores",
    "turku.api.admin.apps.PagesApp",
    "turku.api.project.apps.ProjectApp",
]

MIDDLEWARE = [
    "turku.api.request.client_address.ClientAddressMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "turku.api.request.headers.ContentSecurityPolicyMiddleware",
    "turku.api.rpc.shortcut.CallsShortcutMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "turku.api.project.urls"
WSGI_APPLICATION = "turku.api.project.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = "turku.api.admin.formats"
USE_I18N = False
USE_TZ = True
TIME_ZONE = TURKU_ENVIRONMENT.time_zone

STATIC_URL = "/static/"
# The few static files are served from their packages, so no collectstatic step is needed.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = False

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# The limit holds before a body is read. The codec has the same one.
DATA_UPLOAD_MAX_MEMORY_SIZE = MESSAGE_LIMIT_BYTES

SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = not TURKU_ENVIRONMENT.allow_insecure_cookies
SESSION_COOKIE_HTTPONLY = True
# One working day.
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 365 * 24 * 3600
X_FRAME_OPTIONS = "DENY"

# turku.core.log configures logging for every program.
LOGGING_CONFIG = None
