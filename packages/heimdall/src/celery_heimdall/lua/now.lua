--@include celery_toolkit_core:clock
-- What time it is where everything is judged.
-- KEYS  1 any of ours, so that a cluster knows whom to ask
-- Returns ms
return now_ms()
