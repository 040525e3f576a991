{{/* The engine's pod, the same in a Deployment and in a Rollout. */}}
{{- define "engine.podTemplate" -}}
metadata:
  labels:
    {{- include "engine.labels" (list . "server") | nindent 4 }}
    {{- include "engine.contentLabel" . | nindent 4 }}
  {{- if .Values.istio.enabled }}
  annotations:
    # The sidecar starts before the engine and ends after it, so a draining engine
    # can still answer.
    sidecar.istio.io/nativeSidecar: "true"
    # Prometheus and the kubelet are not of the mesh; the NetworkPolicy says who may come
    # here. Probes go straight to the engine: by way of the sidecar, as Istio rewrites
    # them, a busy or failing sidecar would have the engine restarted.
    traffic.sidecar.istio.io/excludeInboundPorts: "9464"
    sidecar.istio.io/rewriteAppHTTPProbers: "false"
    # PostgreSQL and Redis are not of the mesh: one hop less on every commit, and a
    # sidecar's restart cuts no commit.
    traffic.sidecar.istio.io/excludeOutboundPorts: "{{ .Values.database.port }},{{ .Values.redis.port }}"
  {{- end }}
spec:
  serviceAccountName: engine
  automountServiceAccountToken: false
  enableServiceLinks: false
  # What the hook below, the drain and the logs' last lines take.
  terminationGracePeriodSeconds: {{ add .Values.preStopSeconds .Values.shutdownGraceSeconds 5 }}
  securityContext:
    {{- include "engine.podSecurity" . | nindent 4 }}
  {{- with .Values.topology.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topology.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    - topologyKey: topology.kubernetes.io/zone
      maxSkew: 1
      whenUnsatisfiable: {{ .Values.topology.zoneSpread }}
      labelSelector:
        matchLabels:
          {{- include "engine.selector" (list . "server") | nindent 10 }}
      # Each version is spread by itself: otherwise the old one's pods decide where
      # the new one's may be, and what remains of them stands askew.
      matchLabelKeys: [{{ ternary "pod-template-hash" "rollouts-pod-template-hash" (eq .Values.delivery.strategy "rolling") }}]
    - topologyKey: kubernetes.io/hostname
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "engine.selector" (list . "server") | nindent 10 }}
  containers:
    - name: engine
      image: {{ include "engine.image" (dict "image" .Values.image "version" .Chart.AppVersion) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      envFrom:
        - configMapRef: {name: engine-settings-{{ include "engine.contentHash" . }}}
        - secretRef: {name: engine-app-{{ include "engine.contentHash" . }}}
      ports:
        - {name: http, containerPort: 5000}
        - {name: admin, containerPort: 9464}
      # From the moment that the pod is to end, its address is being taken away from the
      # proxies. Until they know, the engine must not ask clients to leave: they would
      # come back to it. Only then comes SIGTERM. By the kubelet: the image has no `sleep`.
      lifecycle:
        preStop:
          sleep: {seconds: {{ .Values.preStopSeconds }}}
      # Slow starts are the database's: two minutes, then a restart tries anew.
      startupProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 2
        failureThreshold: 60
      # 503 once the main runtime has been silent for 60 s.
      livenessProbe:
        httpGet: {path: /livez, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet: {path: /readyz, port: admin}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      securityContext:
        {{- include "engine.containerSecurity" . | nindent 8 }}
      {{- if .Values.database.caConfigMap.name }}
      volumeMounts:
        {{- include "engine.databaseCaMount" . | nindent 8 }}
  volumes:
    {{- include "engine.databaseCaVolume" . | nindent 4 }}
      {{- end }}
{{- end -}}
