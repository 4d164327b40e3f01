"""What people see of identity: plain HTML, without JavaScript, that works on any screen and with any reader.

blueprint    the routes' common ground: strict headers, errors as pages, housekeeping
browser      who is logged in here: cookies, forms that only we can have made
forms        the token in a form: pure
safety       where a redirect may lead, what a page may load: pure
asking       when a login or a consent is asked for: pure
scopes       scopes in plain words
limits       how often one may try
account      /account, /account/login
consent      /oauth/authorize
device       /account/device
logout       /oauth/logout
templates/   the pages, and their one stylesheet
"""

from app.services.identity.pages import account, consent, device, logout
from app.services.identity.pages.blueprint import pages

__all__ = ["account", "consent", "device", "logout", "pages"]
