"""Questions about videos in a Flask app.

pip install ./producer flask
VIDEOQA_REDIS_URL=redis://127.0.0.1:6379/0 flask --app examples/flask_app run
"""

from flask import Flask, Response, jsonify, request
from pydantic import BaseModel, ValidationError

from videoqa import Client, VideoQAError
from videoqa.errors import IdempotencyConflict, LookupFailed, QueueFull, RedisUnavailable

STATUS = (
    (LookupFailed, 404),
    (IdempotencyConflict, 409),
    (QueueFull, 503),
    (RedisUnavailable, 503),
)


class Asked(BaseModel):
    video: str
    question: str


def create_app(client: Client | None = None) -> Flask:
    """Makes the app; a test passes an `InMemoryClient` as its client."""
    app = Flask(__name__)
    videoqa = client or Client.from_environment()

    @app.post("/questions")
    def ask() -> tuple[Response, int]:
        asked = Asked.model_validate_json(request.get_data())
        job = videoqa.submit(
            inputs=[asked.video],
            questions=[asked.question],
            idempotency_key=request.headers.get("Idempotency-Key"),
        )
        return jsonify(job.model_dump(mode="json")), 202

    @app.get("/questions/<job_id>")
    def status(job_id: str) -> Response:
        job = videoqa.get(job_id)
        found: dict[str, object] = {"job": job.model_dump(mode="json")}
        if job.state == "succeeded":
            found["answer"] = videoqa.result(job_id).answers[0].text
        return jsonify(found)

    @app.errorhandler(ValidationError)
    def handle_invalid(error: ValidationError) -> tuple[Response, int]:
        return jsonify(error={"code": "invalid_request", "message": str(error)}), 422

    @app.errorhandler(VideoQAError)
    def handle_error(error: VideoQAError) -> tuple[Response, int]:
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 422)
        body = {"code": error.code, "message": error.message, "param": error.param}
        return jsonify(error=body), status

    return app
