"""How people and services get tokens: this side is a client of their issuer (OAuth 2.0, OpenID Connect)."""
