--@include celery_toolkit_core:clock
--@include celery_chain_router:members
--@include celery_chain_router:partitions
-- Take the dead off and say the epoch. O(1), after a change O(partitions).
-- KEYS  see members.lua and partitions.lua
-- Returns the epoch
return settle(now_us())
