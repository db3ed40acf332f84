# Targets for a Celery application with the presets. Include it in your Makefile, or use it as one:
#     PUBLISHER = shop.apps:publisher
#     HEAVY = shop.apps:heavy
#     LIGHT = shop.apps:light
#     include showcase.mk

PUBLISHER ?= app
HEAVY ?= $(PUBLISHER)
LIGHT ?= $(PUBLISHER)
CELERY ?= celery
# More options of celery worker, such as WORKER_OPTIONS="-c 4 -l INFO".
WORKER_OPTIONS ?= -l INFO
FLOWER_PORT ?= 5001
BEAT_PIDFILE ?= celerybeat.pid

.PHONY: queues clear_queues status heavy_workers light_workers beat beat_bg beat_stop beat_status flower_heavy

queues: ## List all queues with their messages
	@$(CELERY) -A $(PUBLISHER) showcase queues

clear_queues: ## Remove all waiting messages
	@$(CELERY) -A $(PUBLISHER) showcase purge --yes

status: ## Say what the broker is and which workers answer
	@$(CELERY) -A $(PUBLISHER) showcase status

heavy_workers: ## Start a worker for heavy tasks
	@exec $(CELERY) -A $(HEAVY) showcase workers heavy $(WORKER_OPTIONS)

light_workers: ## Start a worker for light tasks
	@exec $(CELERY) -A $(LIGHT) showcase workers light $(WORKER_OPTIONS)

beat: ## Start beat in the foreground
	@exec $(CELERY) -A $(PUBLISHER) showcase beat start --pidfile $(BEAT_PIDFILE)

beat_bg: ## Start beat in the background
	@$(CELERY) -A $(PUBLISHER) showcase beat start --background --pidfile $(BEAT_PIDFILE)

beat_stop: ## End the beat of the background
	@$(CELERY) -A $(PUBLISHER) showcase beat stop --pidfile $(BEAT_PIDFILE)

beat_status: ## Say whether beat runs
	@$(CELERY) -A $(PUBLISHER) showcase beat status --pidfile $(BEAT_PIDFILE)

flower_heavy: ## Start Flower for the heavy workers
	@exec $(CELERY) -A $(HEAVY) showcase flower --port $(FLOWER_PORT)
