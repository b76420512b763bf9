"""The gateway's reference: what each route takes and answers, as an OpenAPI document."""
