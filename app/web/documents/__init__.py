"""The OpenAPI document.

openapi      API blueprints whose schemas become the document
securing     what it says of the rules
documenting  what it says of the headers that decorators look at
"""
