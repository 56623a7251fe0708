{{- define "hotswap.labels" -}}
app.kubernetes.io/name: hotswap
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "hotswap.selector" -}}
app.kubernetes.io/name: hotswap
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "hotswap.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every pod of ours runs with. */ -}}
{{- define "hotswap.environment" -}}
- {name: DJANGO_SETTINGS_MODULE, value: hotswap.settings.production}
- {name: HOTSWAP_DATA_DIR, value: /data}
- {name: HOTSWAP_ALLOWED_HOSTS, value: {{ required "host: the name that people and devices use" .Values.host | quote }}}
- {name: HOTSWAP_PUBLIC_URL, value: {{ printf "https://%s" .Values.host | quote }}}
- {name: HOTSWAP_METRICS_LISTEN, value: "0.0.0.0:9464"}
- {name: HOTSWAP_S3_BUCKET, value: {{ .Values.s3.bucket | quote }}}
- {name: HOTSWAP_S3_ENDPOINT, value: {{ .Values.s3.endpoint | quote }}}
- {name: HOTSWAP_S3_REGION, value: {{ .Values.s3.region | quote }}}
- {name: HOTSWAP_SECRET_KEY_FILE, value: /secrets/secret-key}
- {name: HOTSWAP_DATABASE_URL_FILE, value: /secrets/database-url}
- {name: HOTSWAP_REDIS_URL_FILE, value: /secrets/redis-url}
- {name: HOTSWAP_PROXY_SECRET_FILE, value: /secrets/proxy-secret}
- {name: HOTSWAP_METRICS_TOKEN_FILE, value: /secrets/metrics-token}
- {name: HOTSWAP_S3_ACCESS_KEY_FILE, value: /secrets/s3-access-key}
- {name: HOTSWAP_S3_SECRET_KEY_FILE, value: /secrets/s3-secret-key}
{{- range $name, $value := .Values.environment }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}

{{- define "hotswap.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "hotswap.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "hotswap.mounts" -}}
- {name: keys, mountPath: /data}
- {name: secrets, mountPath: /secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "hotswap.volumes" -}}
- name: keys
  persistentVolumeClaim:
    claimName: {{ .Values.keys.existingClaim | default (printf "%s-keys" .Release.Name) }}
- name: secrets
  secret:
    secretName: {{ .Values.existingSecret }}
    defaultMode: 0440
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- end }}
