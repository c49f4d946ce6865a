"""What the models are tried with: by readiness in the process itself, by the self-test through HTTP."""

QUESTION = "반품은 언제까지 할 수 있나요?"
ANSWER = "상품을 받은 날부터 7일 안에 반품할 수 있습니다."
