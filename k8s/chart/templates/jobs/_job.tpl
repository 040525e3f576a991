{{/* The pod of a job that runs one command of the engine.
     (dict "root" . "component" "maintain" "account" "engine-jobs" "secret" "engine-owner") */}}
{{- define "engine.jobPod" -}}
metadata:
  labels:
    {{- include "engine.jobLabels" (list .root .component) | nindent 4 }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  securityContext:
    {{- include "engine.podSecurity" .root | nindent 4 }}
  {{- with .root.Values.topology.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "engine.image" (dict "image" .root.Values.image "version" .root.Chart.AppVersion) }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      args: [{{ .component }}]
      env:
        - {name: ENGINE_LOG_FORMAT, value: json}
        # Partitions of keys are as wide as this: migrate and maintain must be told
        # what the engines are.
        - {name: ENGINE_IDEMPOTENCY_RETENTION, value: {{ .root.Values.idempotencyRetention }}}
        - name: ENGINE_DATABASE_URL
          valueFrom:
            secretKeyRef: {name: {{ .secret }}, key: ENGINE_DATABASE_URL}
      resources:
        requests: {cpu: 250m, memory: 256Mi}
        limits: {memory: 512Mi}
      securityContext:
        {{- include "engine.containerSecurity" .root | nindent 8 }}
      {{- if .root.Values.database.caConfigMap.name }}
      volumeMounts:
        {{- include "engine.databaseCaMount" .root | nindent 8 }}
  volumes:
    {{- include "engine.databaseCaVolume" .root | nindent 4 }}
      {{- end }}
{{- end -}}
