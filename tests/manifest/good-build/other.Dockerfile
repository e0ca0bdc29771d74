ARG LEVEL=1
FROM debian:$LEVEL AS test
ARG NAME
RUN --mount=type=secret,id=npmrc --mount=type=secret,id=token,env=TOKEN,required --mount=type=secret,target=/key true
