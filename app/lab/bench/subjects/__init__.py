"""The applications that are compared: all give the same answers on the same paths.

views             the views that every Flask-like side shares
ours, ours_hop    Flask on this house's bridge, and nothing else of it
service           a whole service, as ``mesh run`` serves it
quart, flask, bare           the other sides of `json` and `wait`
fastapi_hop, flask_hop       the other sides of `hop`
peer              whom the hop calls
users, users_sql             the users service, with its cache and without
fastapi_users, fastapi_users_cached      the other sides of `reads`
"""
