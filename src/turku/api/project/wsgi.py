"""The WSGI application, for `turku-api serve` and for other WSGI servers."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "turku.api.project.settings")
application = get_wsgi_application()
